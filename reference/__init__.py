"""What the reference of the command is made from: the command itself. So it says what the command does.

`python -m reference` writes the manual pages, `reference.pages` fills in the pages of the documentation.
"""
