"""The MD5 of MedMNIST's 2D sets with one label an image, as `medmnist/info.py` of versions 2.1.0 and 3.0.2 lists it."""

PUBLISHED = {
    "a8b06965200029087d5bd730944a56c1": "pathmnist",
    "55aa9c1e0525abe5a6b9d8343a507616": "pathmnist_64",
    "0744692d530f8e62ec473284d019b0c7": "dermamnist",
    "b70a2f5635c6199aeaa28c31d7202e1f": "dermamnist_64",
    "c68d92d5b585d8d81f7112f81e2d0842": "octmnist",
    "e229e9440236b774d9f0dfef9d07bdaf": "octmnist_64",
    "28209eda62fecd6e6a2d98b1501bb15f": "pneumoniamnist",
    "8f4eceb4ccffa70c672198ea285246c6": "pneumoniamnist_64",
    "bd4c0672f1bba3e3a89f0e4e876791e4": "retinamnist",
    "afda852cc34dcda56f86ad2b2457dbcc": "retinamnist_64",
    "750601b1f35ba3300ea97c75c52ff8f6": "breastmnist",
    "742edef2a1fd1524b2efff4bd7ba9364": "breastmnist_64",
    "7053d0359d879ad8a5505303e11de1dc": "bloodmnist",
    "2b94928a2ae4916078ca51e05b6b800b": "bloodmnist_64",
    "ebe78ee8b05294063de985d821c1c34b": "tissuemnist",
    "123ece2eba09d0aa5d698fda57103344": "tissuemnist_64",
    "866b832ed4eeba67bfb9edee1d5544e6": "organamnist",  # version 2
    "68e3f8846a6bd62f0c9bf841c0d9eacc": "organamnist",
    "2dcccc29b88e6da5a01161ef20cda288": "organamnist_64",
    "0afa5834fb105f7705a7d93372119a21": "organcmnist",  # version 2
    "b9ceb9546e10131b32923c5bbeaea2b1": "organcmnist",
    "3ce34a8724ea6f548e6db4744d03b6a9": "organcmnist_64",
    "e5c39f1af030238290b9557d9503af9d": "organsmnist",  # version 2
    "9ab87b696fb54e2a387ebe992d6ed5f1": "organsmnist",
    "53a6d115339d874c25e309a994ff46d3": "organsmnist_64",
}
