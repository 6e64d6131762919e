"""Local: everything on one machine, as child processes of one supervisor (`fleet up`).

process.py starts children, output.py keeps what they say, signals.py waits, supervisor.py starts them again;
broker.py is the embedded Valkey, admission.py makes what lets everybody in, background.py does so beside the loop,
state.py is the directory that remembers, stack.py puts them together.
"""
