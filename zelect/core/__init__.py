"""The pure core: values and arithmetic of the election. Nothing here touches the world."""
