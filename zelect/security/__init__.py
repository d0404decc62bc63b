"""Keys, key files, who may connect (ZAP) and who may say what."""
