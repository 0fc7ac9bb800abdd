"""What a run is asked to do: strict types, and the way from what a user wrote."""
