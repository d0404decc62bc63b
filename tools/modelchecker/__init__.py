"""The exhaustive checker: the shipped machine in every order that a bad network and bad luck allow."""
