"""Security: who may do what on the broker, as rules made from one table, and the users that carry them."""
