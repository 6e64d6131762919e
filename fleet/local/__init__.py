"""Local: processes on this machine, as children of one supervisor (`fleet up`), and a worker as a daemon.

process.py starts children, output.py keeps what they say, signals.py waits, supervisor.py starts them again;
broker.py is the embedded Valkey, admission.py makes what lets everybody in, background.py does so beside the loop,
state.py is the directory that remembers, stack.py puts them together.

daemon.py starts, finds and stops the worker of a host, detached.py is the worker's side of that; pidfile.py is what
they leave for each other, incarnation.py tells one process from the next of the same number. program.py is how Fleet
starts itself once more.
"""
