"""The result of an evaluation as a page (`page.build`), a table and a verdict.

The parts are imported from their own modules, so that the terminal's table does not load the page's
templates.
"""
