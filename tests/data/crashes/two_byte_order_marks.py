﻿import torch
