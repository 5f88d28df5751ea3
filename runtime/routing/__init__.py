"""How a message finds its entity: partitions on hosts, one call for many messages, another try when something moved."""
