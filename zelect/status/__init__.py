"""One model of a node's status and of an election: to JSON and back, and the history of elections."""
