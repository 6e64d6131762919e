"""Files of this host, each below a directory that the policy grants."""
