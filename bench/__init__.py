"""Measurements that decided something, by topic; bench/README.md says which script decides what.

Scripts are run as `python bench/TOPIC/SCRIPT.py`. Python then looks for modules in the topic's
folder, so each script puts the repository's root on sys.path and imports bench.common and others
by their full names.
"""
