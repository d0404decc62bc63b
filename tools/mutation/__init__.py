"""Rules broken on purpose in the text of the code, and the tests that must notice."""
