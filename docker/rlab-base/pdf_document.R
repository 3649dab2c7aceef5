# R Markdown's pdf_document where no TeX is installed: pandoc writes Typst, and typst makes the PDF.
function(
    toc = FALSE, toc_depth = 2, number_sections = FALSE, fig_width = 6.5, fig_height = 4.5, fig_caption = TRUE,
    df_print = "default", md_extensions = NULL, keep_md = FALSE, pandoc_args = NULL, ...
) {
    rmarkdown::output_format(
        knitr = rmarkdown::knitr_options(
            opts_chunk = list(dev = "svg", fig.width = fig_width, fig.height = fig_height)
        ),
        pandoc = rmarkdown::pandoc_options(
            to = "typst-citations", # citeproc has set them
            from = rmarkdown::from_rmarkdown(fig_caption, md_extensions),
            args = c(
                "--standalone", "--pdf-engine", "typst",
                if (toc) c("--toc", "--toc-depth", toc_depth),
                if (number_sections) c("--variable", "section-numbering=1.1"),
                pandoc_args
            ),
            ext = ".pdf",
            lua_filters = "/etc/R/pdf_document.lua"
        ),
        keep_md = keep_md,
        df_print = df_print
    )
}
