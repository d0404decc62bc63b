"""Keys, key files, the authenticator (ZAP), and what each key may do."""
