"""What the library says is the truth: a network that somebody saved computes here what its library computes, or it is refused.

Each subject (images, texts, …) names the model types that the service accepts and the switches of their processors or
tokenizers. ``make truth`` tries them all and writes docs/truth.md; ``make test`` tries a pairwise sample, and compares with it.
"""
