"""The HTTP faces. None of them knows how an answer is made."""
