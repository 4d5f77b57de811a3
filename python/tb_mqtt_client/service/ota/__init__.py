"""Firmware and software packages: which is assigned, its download, its check, and its installation by a callback."""
