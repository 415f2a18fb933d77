"""The local training set: durable, inspectable, atomic."""
