"""What hosts do: one function a contract, called with the request and the run's context, returning the reply."""
