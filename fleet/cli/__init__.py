"""The command line: one module a noun, and each command reads parse → client → render.

Data goes to stdout, talk to stderr. Nothing heavy is imported before a command needs it, so imports of Celery, the
database and rich lie inside the functions.
"""
