"""Texts as networks read them: tokens of texts, words, chats, and rows of a language model."""
