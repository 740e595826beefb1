"""`python -m gvcc` is the command line."""

from gvcc.cli import main

main()
