"""The classic builder: a Dockerfile and a context become images, one per instruction.

`options` are the request's, `context` is what the client sent, `arguments` and `cache` remember,
`copying` turns COPY and ADD into archives, `workplace` is a container of a step, `builder` goes
through the stages. Steps that run something boot a container VM; copies open a disk offline.

A build leaves images and, unless told otherwise, nothing else: its containers carry the mark of this
engine process, and those of one that died are swept by the next.
"""
