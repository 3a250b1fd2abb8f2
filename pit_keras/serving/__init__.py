"""The small HTTP server that answers with an exported or trained model, and its page.

Nothing here trains, exports or measures.
"""
