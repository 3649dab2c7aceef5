#!/opt/venv/bin/python -I
"""The command of the typst wheel that pandoc asks for: typst compile [--root ROOT] FILE.typ FILE.pdf."""

import argparse
import sys

import typst

parser = argparse.ArgumentParser(prog="typst")
compile_parser = parser.add_subparsers(required=True).add_parser("compile")
compile_parser.add_argument("--root", default="/")
compile_parser.add_argument("source")
compile_parser.add_argument("output")
arguments = parser.parse_args()
try:
    typst.compile(arguments.source, output=arguments.output, root=arguments.root)
except RuntimeError as error:
    sys.exit(f"typst: {error}")
