"""The clients, and the parts that they are made of."""
