"""The page: a base directory in a browser, during the run and years later, and one file for a report.

It looks, through `Project` opened to read; what it may change goes through a Project that it was given
for that. Needs the extra ``web``.
"""
