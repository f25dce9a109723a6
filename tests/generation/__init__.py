"""Training programs built from parts, run on a stand-in for torch that knows which batch every gradient comes from.

spec      what a program is made of, and hypothesis strategies that choose it
render    a spec as source
symbolic  runs a source on symbolic gradients and writes down what happens, line by line
truth     what is wrong by that record: no part of it knows the analyzer
rewrite   changes of a source that must not change what is found
"""
