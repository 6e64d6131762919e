"""Flower, as Fleet runs it: a window on the workers and their tasks that cannot touch anything.

Stock Flower asks workers questions and can send them tasks. Fleet's hosts take no questions (their remote control is
off), and a task without Fleet's envelope is refused anyway. So this Flower only listens to Celery's events: channel.py
subscribes and can publish nothing, heard.py answers from events what Flower would ask workers, pages.py refuses every
page that would change something and asks for the password where stock Flower does not, app.py runs it all.
It builds on parts of Flower that are no promised interface, hence the pinned version; tests/integration says if they
move.
"""
