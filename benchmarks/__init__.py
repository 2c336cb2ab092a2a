"""How fast this project is, beside the pipelines of GitLab's own tool: `python -m benchmarks --help`.

It measures and compares; it asserts no time. What is measured is checked once for being right.
"""
