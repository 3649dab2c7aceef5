"""The parameters with which builds and labs get online, by name."""

PROXIES = ("http_proxy", "https_proxy", "no_proxy")
ADDRESSES = ("APTPROXY", "PIPPROXY", "http_proxy", "https_proxy")  # those that are one
REPOSITORIES = ("CRAN", "BIOC")  # of R packages
PARAMETERS = ("APTPROXY", "PIPPROXY", "PIPHOST", *PROXIES)
