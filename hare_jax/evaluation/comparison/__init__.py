"""Results side by side, as tables and as charts.

bars.py     bars with intervals as SVG
tables.py   results and the paper's as Markdown, with what keeps them from being compared
chart.py    the same as bars
compare.py  the job behind configs/compare.py
"""
