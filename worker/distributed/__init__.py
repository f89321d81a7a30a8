"""Several ranks that train one network side by side: their process group, collectives, batch norm and generators."""
