def publish(folder, congestion):
    return True
