"""What an evaluation does beside scoring: facts of its pairs, comparisons, generations, outside metrics."""
