"""One file a version, named `<number>_<what>.py`; `fleet.db` reads the newest number off the names."""
