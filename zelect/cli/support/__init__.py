"""What several commands share: options, errors, orders to nodes. Commands themselves are one folder up."""
