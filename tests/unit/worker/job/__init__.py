"""Tests of one attempt at a job."""
