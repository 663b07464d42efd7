"""The same explanations by a faster road; nothing here knows a rule or a method, and what does not fit takes the plain road."""
