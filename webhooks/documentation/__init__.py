"""What subscribers read: schemas, examples, the event catalogue and the API's description.

Everything here is made from the catalogue, the formats and the URL conf, so that it cannot say
anything else than what is delivered. Nothing is stored, sent or changed.
"""
