"""What curves show: ``curves`` reads them, each rule's module judges them, ``verdict`` asks the rules in order."""
