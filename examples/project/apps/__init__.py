"""Two apps on one environment: `python -m apps.service` and `python -m apps.report`."""
