"""The client of one device, and what turns its data into payloads."""
