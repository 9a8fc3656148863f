"""Records of an evaluation as one page (`page.build`), a table and a sentence.

The parts are imported from their own modules, so that the terminal's table does not wait
for the page's plotting library.
"""
