"""The console, ``/explore``: tables, questions with charts, cohorts; rendered here, without scripts.

`visits` lets a browser in and turns errors into pages, `pages` renders, and each of `tables`, `questions`, `saved`
and `cohorts` answers for one part; `charts` draws. Everything passes the gate as other doors do.
"""
