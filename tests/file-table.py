#!/usr/bin/env python3
"""The "file → purpose" table of docs/README.md, made of the first line of each file's comment.

usage: file-table.py [--write]     without --write: exit status 1 when the table is stale or a file has no purpose
"""
import os
import re
import subprocess
import sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), ".."))
PAGE = os.path.join(ROOT, "docs", "README.md")
MARK = "<!-- table -->\n"
FOLDERS = ("include", "src", "mmu", "cpu", "devices", "firmware", "tests", "examples")


def files():
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT,
                            stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return sorted(f for f in listed if f.endswith((".c", ".h", ".S", ".def", ".py", ".ld", ".init"))
                  and os.path.exists(os.path.join(ROOT, f)))


def purpose(path):
    """The first sentence-like line of the file's opening comment, without the file's own name."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as source:
        head = source.read(2000)
    if path.endswith(".py"):
        match = re.search(r'"""(.*?)(\n\s*\n|""")', head, re.S)
    elif path.endswith(".init"):
        match = re.search(r"^# (.*)$()", head, re.M)
    else:
        match = re.search(r"/\*(.*?)(\n \*\s*\n|\*/)", head, re.S)
    if not match:
        return None
    text = re.sub(r"\s*\n\s*\*?\s*", " ", match.group(1)).strip().lstrip("* ")
    text = re.sub(r"^%s\s*(?:-|:)\s*" % re.escape(os.path.basename(path)), "", text)
    text = re.split(r"(?<!vol)(?<!ch)(?<=[a-z0-9)])[.;] ", text)[0].rstrip(".")
    return text.replace("|", "\\|")


def table():
    rows, folder = [], None
    for path in files():
        where = os.path.dirname(path)
        if where != folder:
            folder = where
            rows += ["", f"**{where}/**", "", "| file | purpose |", "| --- | --- |"]
        text = purpose(path)
        if not text:
            sys.exit(f"{path}: does not begin with a comment that says its purpose")
        rows.append(f"| `{os.path.basename(path)}` | {text} |")
    return "\n".join(rows) + "\n"


def main():
    with open(PAGE, encoding="utf-8") as page:
        text = page.read()
    head = text[:text.index(MARK) + len(MARK)]
    fresh = head + table()
    if "--write" in sys.argv[1:]:
        with open(PAGE, "w", encoding="utf-8") as page:
            page.write(fresh)
    elif fresh != text:
        sys.exit("docs/README.md: the file table is stale; tests/file-table.py --write renews it")


main()
