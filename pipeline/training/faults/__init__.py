"""What can go wrong while a training runs, and how it ends then: a signal, a loss not finite, no memory."""
