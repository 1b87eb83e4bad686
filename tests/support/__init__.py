"""What tests share: the scripted upstream, raw clients, real wheels, teepi in both its forms, the network guard."""
