#!/opt/venv/bin/python -I
"""The command of the typst wheel that pandoc asks for: typst compile [--root ROOT] FILE.typ FILE.pdf."""

import argparse
import sys
from pathlib import Path

import typst
from pyrlab_signs import complaints

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
for complaint in complaints(Path(arguments.source).read_text(encoding="utf-8"), Path(arguments.output).read_bytes()):
    print(f"typst: {complaint}", file=sys.stderr)
