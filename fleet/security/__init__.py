"""Security: keys and signatures, who somebody is by the fleet's word, and what the broker lets each do."""
